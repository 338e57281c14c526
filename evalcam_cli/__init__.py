"""evalcam: split images honestly, train a ResNet, evaluate it with intervals, and see what it looked at."""

__version__ = "0.1.0"
