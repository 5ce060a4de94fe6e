"""Environment inference as its paper's code does it: gradient ascent on soft assignments."""

import torch


def penalty(loss, z, y, q):
    """Squared gradients of both environments' risks in a dummy scale at 1."""
    total = 0.0
    for share in (q, 1 - q):
        w = torch.ones((), dtype=z.dtype, requires_grad=True)
        risk = (share.detach() * loss.value(w * z, y)).mean()
        total += float(torch.autograd.grad(risk, w)[0] ** 2)
    return total


def ascend(loss, z, y, seed, steps=400, lr=0.3):
    """Adam on logits of the assignments, from small random ones."""
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(z), generator=g, dtype=z.dtype).requires_grad_()
    adam = torch.optim.Adam([logits], lr=lr)
    for _ in range(steps):
        q = logits.sigmoid()
        value = z.new_zeros(())
        for share in (q, 1 - q):
            w = torch.ones((), dtype=z.dtype, requires_grad=True)
            risk = (share * loss.value(w * z, y)).mean()
            value = value + torch.autograd.grad(risk, w, create_graph=True)[0] ** 2
        adam.zero_grad()
        (-value).backward()
        adam.step()
    return logits.detach().sigmoid()
