"""What the docks of one viewer do. It ties session, jobs and layers together; docks only call it and look at the session."""
