"""Is a cached head enough? The ways to a classifier side by side: on the same images, judged alike, with their cost."""
