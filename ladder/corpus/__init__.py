"""What runs read: the corpus as token records, in a workdir or a cache that many ladders share."""
