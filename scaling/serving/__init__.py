"""What serving costs: devices, services, step times, replicas."""
