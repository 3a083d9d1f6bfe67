"""Groups: keeps so many VEs of a template, and changes them a few at a time. `steps`, `state` and `progress` are pure."""
