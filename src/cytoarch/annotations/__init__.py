"""What people draw: scribbles as data, their versions, how they are kept, exchanged and turned into labels."""
