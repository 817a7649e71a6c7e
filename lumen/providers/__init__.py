"""One file a dialect: how a call becomes HTTP and HTTP becomes events."""
