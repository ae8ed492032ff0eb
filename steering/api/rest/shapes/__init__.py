"""What goes over the wire, one module per noun. Requests refuse names they do not know."""
