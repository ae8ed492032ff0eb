"""What the package `mechanex` expects of a server: addresses without a slash, `{"detail": …}`, events that end."""
