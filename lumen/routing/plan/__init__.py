"""What a policy may know: the request and the targets as they are seen when a request is planned. Pure."""
