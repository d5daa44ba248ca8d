# The engine and its examples in one image; docker-compose.yml says which command each service runs.
FROM python:3.13.9-slim
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY saga_engine saga_engine
COPY migrations migrations
COPY examples examples
RUN pip install --no-cache-dir -c constraints.txt '.[crypto,webhooks]' && useradd --system saga
USER saga
ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["saga-engine"]
