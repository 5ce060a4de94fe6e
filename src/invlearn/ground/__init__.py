"""What stands below everything: files written whole, and this machine."""
