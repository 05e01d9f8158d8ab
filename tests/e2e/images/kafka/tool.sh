#!/bin/bash
# Kafka's own programs by the names of its distribution's scripts, which Maven does not have.
options=(-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto "-Dlog4j2.configurationFile=/etc/kafka/docker/tools-log4j2.yaml")
case $(basename "$0" .sh) in
    kafka-server-start)
        main=kafka.Kafka
        options=(-XX:+UseSerialGC -Xshare:auto "-Dlog4j2.configurationFile=/opt/kafka/config/log4j2.yaml")
        read -ra heap <<<"${KAFKA_HEAP_OPTS:--Xms1G -Xmx1G}"
        options+=("${heap[@]}")
        [[ ! -s /opt/kafka/kafka.jsa ]] || options+=(-XX:SharedArchiveFile=/opt/kafka/kafka.jsa)
        ;;
    kafka-storage) main=kafka.tools.StorageTool ;;
    kafka-configs) main=kafka.admin.ConfigCommand ;;
    kafka-acls) main=org.apache.kafka.tools.AclCommand ;;
    kafka-broker-api-versions) main=org.apache.kafka.tools.BrokerApiVersionsCommand ;;
    kafka-console-consumer) main=org.apache.kafka.tools.consumer.ConsoleConsumer ;;
    kafka-console-producer) main=org.apache.kafka.tools.ConsoleProducer ;;
    kafka-consumer-groups) main=org.apache.kafka.tools.consumer.group.ConsumerGroupCommand ;;
    kafka-get-offsets) main=org.apache.kafka.tools.GetOffsetShell ;;
    kafka-leader-election) main=org.apache.kafka.tools.LeaderElectionCommand ;;
    kafka-metadata-quorum) main=org.apache.kafka.tools.MetadataQuorumCommand ;;
    kafka-topics) main=org.apache.kafka.tools.TopicCommand ;;
    *) echo "$0: no such program" >&2; exit 2 ;;
esac
read -ra given <<<"${KAFKA_OPTS:-}"
exec java "${options[@]}" "${given[@]}" -cp '/opt/kafka/libs/*' $main "$@"
