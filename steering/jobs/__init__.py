"""Long work that outlives the page that started it: rows to look at, and the runner that fills them."""
