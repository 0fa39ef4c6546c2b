"""What is asked for: a clip and a model, each as one value for all faces, with its check and its way into metadata."""
