"""When a call may leave: limits a minute, money, retries, and the rate that the server allows."""
