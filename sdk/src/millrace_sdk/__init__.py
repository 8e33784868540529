"""What an author of a Millrace piece imports."""
