"""Who serves which model: a person's choice among those served, and the administrator's page of workers."""
