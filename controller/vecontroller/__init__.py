"""The controller: API, scheduler, sessions of the hosts; etcd holds its state."""
