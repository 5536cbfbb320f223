"""The demo shop: server-rendered pages, a little plain JavaScript, nothing from another host."""
