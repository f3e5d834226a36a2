"""What live tests share."""
