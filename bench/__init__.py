"""Side-by-side benchmarks: one generated image, read through restorefs and through its peers."""
