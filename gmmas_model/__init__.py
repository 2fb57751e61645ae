"""The GMMAS network, its losses, metrics and weights. Pure PyTorch and MONAI: no files of scans, no federation."""
