"""What several test files need; each file has one purpose."""
