"""`/v1`: what programs that speak OpenAI's API find here, with steering in the body or in the model's name."""
