"""The same use case in two programming models, measured side by side."""
