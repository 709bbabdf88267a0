"""What watches a service: rules, alerts, dashboards, and the configuration of the programs that hold them."""
