"""What all other folders use: files and paths, settings, keys of results, weights on disk, tables that grow part by
part, parallel tasks, random fields from a key, boxes, inputs of networks, the record of behaviour. It uses no other
folder.
"""
