"""What programs speak to: the product's own REST API under /api/v1/, beside other APIs that they know already."""
