ARG SDK_IMAGE=mcr.microsoft.com/dotnet/sdk:10.0.401
ARG RUNTIME_IMAGE=mcr.microsoft.com/dotnet/aspnet:10.0.12

# The compiler runs on the builder's own processor, whatever processor the image is for.
FROM --platform=${BUILDPLATFORM:-linux/amd64} ${SDK_IMAGE} AS build
ARG TARGETARCH
WORKDIR /source

# The packages first: this layer stays as long as the project files do.
COPY .editorconfig global.json Directory.Build.props Directory.Packages.props ./
COPY src/OrderService.Domain/OrderService.Domain.csproj src/OrderService.Domain/
COPY src/OrderService/OrderService.csproj src/OrderService/Runtime.props src/OrderService/
# The secret "nuget" is a NuGet.Config for those who restore from a mirror of their own; empty or absent means nuget.org.
RUN --mount=type=secret,id=nuget,target=/run/secrets/nuget,required=false \
    --mount=type=cache,target=/root/.nuget/packages \
    if [ -s /run/secrets/nuget ]; then set -- --configfile /run/secrets/nuget; fi; \
    dotnet restore src/OrderService --arch "${TARGETARCH:-amd64}" "$@"

COPY appsettings.json LICENSE NOTICE ./
COPY src src
ARG VERSION=1.0.0
RUN --mount=type=cache,target=/root/.nuget/packages \
    dotnet publish src/OrderService --configuration Release --no-restore --arch "${TARGETARCH:-amd64}" --no-self-contained -p:Version="$VERSION" --output /app \
 && mkdir /empty

FROM ${RUNTIME_IMAGE}
ARG VERSION=1.0.0
ARG REVISION=
LABEL org.opencontainers.image.title="orderservice" \
      org.opencontainers.image.description="Takes orders from RabbitMQ, decides each exactly once, and keeps what can't be processed." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
WORKDIR /app
COPY --from=build /app ./
# The one place the service writes to; a new volume takes its owner from here. Group 0 may as well: some platforms give each container a user of its own in that group.
COPY --from=build --chown=1654:0 --chmod=0770 /empty /data

# The base image's own port setting is emptied: Urls decides.
ENV ASPNETCORE_HTTP_PORTS= \
    DOTNET_EnableDiagnostics=0 \
    Urls=http://+:8080 \
    ManagementUrls=http://+:8081 \
    Store__Path=/data/orders.db
USER 1654:1654
VOLUME /data
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
# Of the listener that strangers can't fill. By hand, `orderservice health` asks the same and explains. As a probe every ten seconds, a new .NET process would cost more
# than the service does at rest, and be too slow on a machine that is busy.
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=3 CMD ["bash", "-c", "exec 3<>/dev/tcp/localhost/8081 && printf 'GET /health/ready HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && tail -n 1 <&3 && [ \"$status\" = 200 ]"]
ENTRYPOINT ["/app/orderservice"]
CMD ["serve"]
