"""Metrics that workers have and no dashboard shows, each with its reason."""

UNUSED = {
    "process_virtual_memory_bytes": "address space is no memory: threads and allocators reserve far more than they use",
    "process_virtual_memory_max_bytes": "there is no limit of address space in a container",
}
