"""Where the model looked: attribution, drawing."""
