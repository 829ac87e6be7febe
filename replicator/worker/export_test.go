package worker

// CloseIdle drops the webhooks' idle connections, which would look like leaks to tests.
func CloseIdle() { webhookClient.CloseIdleConnections() }
