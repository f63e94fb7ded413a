"""What the docks of one viewer do: docks call it and look at the session, it ties jobs and layers together."""
