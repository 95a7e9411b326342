"""All about RabbitMQ: the connection, how queues are made, and what a server lets us do."""
