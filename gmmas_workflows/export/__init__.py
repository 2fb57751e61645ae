"""A trained model for other programs: as weights, as an ONNX file, as a MONAI bundle."""
