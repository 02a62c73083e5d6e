"""Many workers: a plan's sections, or many jobs, over processes and machines. Ray is imported when it is used."""
