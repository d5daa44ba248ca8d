"""What is told: facts, and what becomes of them in logs, in metrics and on the HTTP port."""
