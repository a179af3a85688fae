"""The endpoints, a module per subject: HTTP only, `service_of` leads to the rest. Where each is is in `routes`."""
