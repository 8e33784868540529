"""Who people are, what they may enter, and other systems' secrets. Read service.py first."""
