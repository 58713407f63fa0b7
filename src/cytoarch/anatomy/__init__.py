"""What is where in a section: tissue now; reconstruction, depth and surfaces later."""
