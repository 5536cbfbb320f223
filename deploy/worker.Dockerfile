# The worker retrains: it needs the repository, git and everything that the lock pins.
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --create-home homeranker
WORKDIR /home/homeranker/app
COPY --chown=10001:10001 . .
RUN pip install --no-cache-dir -c requirements.lock torch && pip install --no-cache-dir -c requirements.lock -e . \
    && pip install --no-cache-dir -c requirements.lock asyncpg
USER 10001
ENV HOMERANKER_HOME=/home/homeranker/state
CMD ["homeranker", "status"]
