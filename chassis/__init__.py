"""What every process stands on; nothing about workflows."""
