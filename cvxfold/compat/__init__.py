"""What is known of the private parts of other packages."""
