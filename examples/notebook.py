"""What a notebook shows of rows, a run, a comparison and a diagnosis; here printed."""

from invlearn import RowsRequest, compare
from invlearn.rows.example import hospitals

rows = hospitals(rows=40)
comparison = compare(RowsRequest(rows, "ill", "hospital", ["vrex"], steps=20), jobs=1)
# Naming it in a cell shows the answer, its reasons and the main table; here it is printed.
print(comparison)
print(comparison.overview.to_string())
for finding in comparison.record.findings:
    print(finding)
print(comparison._repr_html_()[:200])
