"""The endpoints, a module per subject, each with `add_routes(app)`: HTTP only, `service_of` leads to the rest."""
