"""The typed source of dashboards and alerts, and the program that shows them to be true of running workers."""
