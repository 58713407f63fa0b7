"""The napari plugin: draw on a brain of the store, press a key, see the map. Needs `pip install 'cytoarch[napari]'`."""
