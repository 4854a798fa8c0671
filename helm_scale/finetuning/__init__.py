"""Properties of molecules from few labels, on a pretrained backbone."""
