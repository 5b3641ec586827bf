"""The cost of serving: devices, services, step times, replicas."""
