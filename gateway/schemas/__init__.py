"""What REST takes and shows, one module a domain: models that document, views that are sent."""
